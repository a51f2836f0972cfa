"""The code that runs inside the contained processes; standard library only, relative imports only.

This folder is the one part of lichen that is visible in a sandbox, where it is the top-level
package ``inside``. Nothing here is imported by untrusting code on the parent's side except the
codec and the framing, which both sides share.
"""
