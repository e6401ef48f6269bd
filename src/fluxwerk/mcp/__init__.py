"""The MCP server: assistants make images with it, within caps, and never pay twice for a lost answer."""
