"""python -m examples.drawn_faces OUT --people 120: drawn faces in the layout of the competition."""

from examples.drawn_faces.draw import main

main()
