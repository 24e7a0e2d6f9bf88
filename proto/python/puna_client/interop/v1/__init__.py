"""Generated from proto/puna/interop/v1 by tools/gen_proto.py. Do not edit."""
