"""The lesion application: light U-Net, phantom, split, training and metrics. The home of torch and albumentations."""
