"""Networks: the built-in ones, torchvision's, and custom ones by import path."""
