"""Request bodies as Go's encoding/json decodes them: leniencies, refusals, and error texts."""
