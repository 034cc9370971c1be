"""Who is where in a video: shot cuts, detections, identities, smoothed boxes."""
