"""Write the page of an exported file: page_without_torch.py OUT MODEL; prints what was imported without need."""

import json
import sys

if __name__ == "__main__":
    from hybridvit.bench_page import write_page

    write_page(sys.argv[1], [sys.argv[2]], webgpu=False)
    print(json.dumps([name for name in ("torch", "timm", "onnx") if name in sys.modules]))
