// A page that shows the file named in its address, as h5web shows it when it is opened.
import { createRoot } from "react-dom/client";
import { App } from "@h5web/app";
import { H5WasmBufferProvider } from "@h5web/h5wasm";
import "@h5web/app/styles.css";

const name = new URLSearchParams(location.search).get("file");
const buffer = await (await fetch("/file/" + name)).arrayBuffer();
createRoot(document.getElementById("root")).render(
  <H5WasmBufferProvider filename={name} buffer={buffer}>
    <App />
  </H5WasmBufferProvider>,
);
