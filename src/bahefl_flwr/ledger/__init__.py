"""The ledger: typed client of the contract, connection to any node, and the embedded node of simulations."""
