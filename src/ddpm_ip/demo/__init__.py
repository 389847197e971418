"""The command ``demo``: DDPM and DDPM-IP on handwritten digits, side by side."""
