"""From the bytes of a film to gray pixels: one way for training, evaluation and answers."""
