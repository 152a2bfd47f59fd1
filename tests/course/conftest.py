from toycourse import course_folder  # noqa: F401  the fixture of every test here
