"""Screening of encrypted updates: what a sketch of each of them says, and what follows. numpy only; nothing secret, no ciphertext."""
