"""Request bodies as Go's encoding/json reads them: what it forgives, what it refuses, and in which words."""
