"""A simulator of replicas in virtual time: what a routing policy is worth on clusters that no machine here can be."""
