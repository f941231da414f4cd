"""3D hand meshes: where each point of a hand is, from one picture."""
