"""The films as rows: their labels, the tables that list them, and the array that holds their pixels."""
