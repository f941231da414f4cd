"""Build and fold models where some packages are not installed: built_without.py PACKAGE,... MODEL,..."""

import sys

if __name__ == "__main__":
    packages, models = (words.split(",") for words in sys.argv[1:])
    for package in packages:
        sys.modules[package] = None  # type: ignore[assignment]  # so that importing it fails
    import hybridvit

    for name in models:
        model = hybridvit.create_model(name).eval()
        print(
            name, hybridvit.fold_report(model, hybridvit.fold(model)).left, "swin_tiny_hat" in hybridvit.list_models()
        )
