"""The recorders of processes that people use, on the same storm: what each loses, slows, costs and says. See __main__."""
