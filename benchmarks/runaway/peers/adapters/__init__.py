"""One file a library. Standard library and that library only: each is loaded by its path, in the library's interpreter."""
