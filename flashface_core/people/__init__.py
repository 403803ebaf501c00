"""Who is to be drawn, and where: identities, mixes, places, files."""
