"""What people do on pages."""

import base64
from pathlib import Path
from typing import Any


def hand_over(page: Any, event: str, picture: Path, *, at: str) -> None:
    """Drop or paste a JPEG at the element of that id."""
    content = base64.b64encode(picture.read_bytes()).decode()
    page.evaluate(
        """([event, name, content, id]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type: "image/jpeg" }));
            const details = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
            const made = event === "paste" ? new ClipboardEvent(event, details) : new DragEvent(event, details);
            document.getElementById(id).dispatchEvent(made);
        }""",
        [event, picture.name, content, at],
    )
