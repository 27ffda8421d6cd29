"""Which operations were heard already: one that comes twice is carried out once."""

__all__ = ["Seen"]

_MOST_CLIENTS = 256
_MOST_OPERATIONS = 4096
"""Of one client; it sends nothing again that is older."""


class Seen:
    """Remembers the ids of each client's last operations; the clients that were silent longest are forgotten."""

    def __init__(self) -> None:
        self._clients: dict[str, dict[int, None]] = {}

    def is_new(self, client: str, number: int) -> bool:
        """Note an operation; give whether it was not heard before. Those with id 0 cannot be told apart."""
        if not number:
            return True
        numbers = self._clients.pop(client, None)
        if numbers is None:
            numbers = {}
            if len(self._clients) >= _MOST_CLIENTS:
                del self._clients[next(iter(self._clients))]
        self._clients[client] = numbers
        if number in numbers:
            return False
        numbers[number] = None
        if len(numbers) > _MOST_OPERATIONS:
            del numbers[next(iter(numbers))]
        return True
