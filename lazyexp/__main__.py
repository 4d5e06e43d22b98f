from lazyexp.cli import main

main()
