"""What tests share: a server to ask, images, jobs, and a judge of what a crash left."""
