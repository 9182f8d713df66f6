"""Images in parts: layers written so that they can be read in part (eStargz), and parts of blobs from registries."""
