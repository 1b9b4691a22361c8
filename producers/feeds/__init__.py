"""Social feeds into the topic of posts: read on where it was left, each post once, deletions honoured."""
