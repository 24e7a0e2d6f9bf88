"""Generated from proto/puna/backend/v1 by tools/gen_proto.py. Do not edit."""
