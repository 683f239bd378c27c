"""Each kernel alone, and the launch tables that timing its tiles makes."""
