"""What a process opens to run jobs: images, task distributions, network, learner."""
