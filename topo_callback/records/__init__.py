"""What is on disk: samples, snapshots, the folder of a run, and the trajectory that is read back from it."""
