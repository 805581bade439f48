"""Running networks on images, videos and cameras."""
