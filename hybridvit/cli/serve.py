"""`hybridvit serve`: models as a service."""

from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from hybridvit.errors import UsageError, one_line
from hybridvit.hub import local_file
from hybridvit.loading import Device
from hybridvit.serve.limits import DEFAULTS, Limits
from hybridvit.stderr import remark


def serve(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = DEFAULTS,
    threads: int | None = None,
    device: Device = "auto",
    trust_changed: bool = False,
    public: bool = False,
    certfile: Path | None = None,
    keyfile: Path | None = None,
    bench: bool = False,
) -> int:
    """Serve models over HTTP, with a page to try them on.

    Each model is a file as `hybridvit predict` takes it, and computes in a process of its own. Pictures go to /predict,
    as the bytes of the file; docs/serve.md has the other addresses. Ctrl-C, or SIGTERM, ends it when what was asked is
    answered.

    Examples:
      hybridvit serve runs/digits/model.safetensors
      hybridvit serve model.onnx small=model-int8.onnx --port 8080
      hybridvit serve model.onnx --host 0.0.0.0 --public --certfile cert.pem --keyfile key.pem
      hybridvit serve model.onnx small=model-int8.onnx --bench
      curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?top=3'

    Args:
        models: files of models, or NAME=FILE; without a name the file's is taken, without its ending.
        host: address to serve at.
        port: port to serve at; 0 takes one that is free.
        threads: CPU threads of each model; by default the runtime decides.
        device: where PyTorch computes; auto takes a GPU if there is one. Exported models run on the CPU.
        trust_changed: take exported files that were changed on purpose (simplified, converted to fp16).
        public: serve to other machines too; needed for a host that they reach.
        certfile: certificate for https, PEM.
        keyfile: its private key, PEM.
        bench: serve at /bench/ the page of `hybridvit bench-page` too, which times the models in a browser.
    """
    limits.check()
    _check_host(host, public, is_encrypted=certfile is not None)
    _check_certificate(certfile, keyfile)
    server = _server()
    from hybridvit.serve.models import Models, named
    from hybridvit.serve.pages import bench_folder
    from hybridvit.serve.served import Model

    chosen = [
        Model(name=name, path=str(local_file(path)), device=device, threads=threads, trust_changed=trust_changed)
        for name, path in named(models).items()
    ]
    import asyncio

    words = [f"{model.name}={model.path}" for model in chosen]
    with ExitStack() as stack:
        listening = stack.enter_context(server.bound(host, port))
        folder = stack.enter_context(bench_folder(words, trust_changed=trust_changed)) if bench else None
        running = server.run(
            Models(chosen, limits), listening, host=host, certfile=certfile, keyfile=keyfile, bench=folder
        )
        asyncio.run(running)
    return 0


def _server():
    """The module that serves, whose packages are an extra."""
    try:
        from hybridvit.serve import server
    except ImportError as error:
        raise UsageError(
            f'Serving needs packages that are not installed ({one_line(error)}). Run: pip install "hybridvit[serve]".'
        ) from error
    return server


def _check_host(host: str, public: bool, *, is_encrypted: bool) -> None:
    try:
        is_local = ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    if not is_local and not public:
        raise UsageError(
            f"--host is {host}, which other machines reach, and anybody there could use the models. Add --public if "
            "that is meant."
        )
    if not is_local:
        lacks = "no password" if is_encrypted else "no password and, without --certfile, no encryption"
        remark(f"Other machines can reach {host}: there is {lacks}.")


def _check_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    if (certfile is None) != (keyfile is None):
        raise UsageError("--certfile and --keyfile go together. Give both, or neither.")
    for name, path in (("certfile", certfile), ("keyfile", keyfile)):
        if path is not None and not path.is_file():
            raise UsageError(f"--{name} is {path}, but there is no such file. Check the path.")
    if certfile is not None:
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
        except OSError as error:  # an SSLError is one
            raise UsageError(
                f"--certfile {certfile} and --keyfile {keyfile} are no certificate and its key ({one_line(error)}). "
                "Give PEM files that belong together."
            ) from error
