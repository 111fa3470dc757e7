"""CelebA-HQ with CelebAMask-HQ's attributes and masks.

`files` reads the folder as it is downloaded, `prepare` writes it as records,
`builder` as a set of TensorFlow Datasets, `splits` says who is tested on what.
"""
