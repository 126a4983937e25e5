"""What is measured of exported models, one module a measure."""
