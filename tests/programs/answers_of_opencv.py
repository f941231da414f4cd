"""Run an ONNX file in OpenCV's dnn, in an environment that has it: FILE IMAGES.npy ANSWERS.npy."""

import sys

import cv2
import numpy as np

if __name__ == "__main__":
    file, given, answered = sys.argv[1:]
    net = cv2.dnn.readNetFromONNX(file)
    net.setInput(np.load(given))
    np.save(answered, net.forward())
    print(cv2.__version__)
