"""What installs and runs Tasktrail beside the programs themselves."""
