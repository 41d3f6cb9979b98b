"""Parts that several sources share: layouts of folders, tables of labels, errors of hubs."""
