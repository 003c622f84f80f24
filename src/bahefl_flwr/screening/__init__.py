"""Screening of encrypted updates: what their sketches say, and what follows. numpy only; nothing secret, no ciphertext."""
