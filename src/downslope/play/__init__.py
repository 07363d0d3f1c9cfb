"""The playground: one page that needs no network, in which anyone can feel every rule."""
