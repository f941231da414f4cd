"""Common corruptions (Hendrycks and Dietterich, ICLR 2019), made on the fly or written as ImageNet-C lies on a disk."""
