// node show.mjs CHROMIUM FILE…: prints {file name: text of the page} once each page shows a plot, or after 30 s.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { basename, join } from "node:path";
import { chromium } from "playwright-core";

const [browserPath, ...files] = process.argv.slice(2);
const page = '<!doctype html><link rel="stylesheet" href="/dist/page.css"><div id="root" style="height: 95vh"></div><script type="module" src="/dist/page.js"></script>';
const paths = new Map(files.map((path) => ["/file/" + basename(path), path]));
const types = { ".js": "text/javascript", ".css": "text/css" };
const server = createServer(async (request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  const ending = path.slice(path.lastIndexOf("."));
  if (path === "/") return response.setHeader("content-type", "text/html").end(page);
  try {
    const content = await readFile(paths.get(path) ?? join("dist", basename(path)));
    response.setHeader("content-type", types[ending] ?? "application/octet-stream").end(content);
  } catch {
    response.writeHead(404).end();
  }
}).listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader"];
const browser = await chromium.launch({ executablePath: browserPath, args: flags });
const texts = {};
for (const file of files) {
  const tab = await browser.newPage();
  await tab.goto(`http://127.0.0.1:${server.address().port}/?file=${basename(file)}`);
  await tab.getByText(/NX (Line|Heatmap)/).first().waitFor({ timeout: 30_000 }).catch(() => undefined);
  await tab.locator("svg text").first().waitFor({ timeout: 10_000 }).catch(() => undefined);
  texts[basename(file)] = (await tab.innerText("body")).replace(/\s+/g, " ");
}
await browser.close();
server.close();
console.log(JSON.stringify(texts));
