"""The engine `upstream`: a gateway that has another service of the same API make the images, on one account."""
