"""Parts that several sources share: archives, layouts of folders, tables of labels, errors of hubs."""
