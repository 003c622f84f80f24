"""Threshold CKKS: parameters, packing, encryption and addition, key ceremony, decryption by a quorum, and the byte formats."""
