"""Run an ONNX file in the ONNX Runtime of this environment, which need not be ours: FILE IMAGES.npy ANSWERS.npy."""

import sys

import numpy as np
import onnxruntime

if __name__ == "__main__":
    file, given, answered = sys.argv[1:]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    np.save(answered, session.run(None, {"images": np.load(given)})[0])
    print(onnxruntime.__version__)
