module whoami

go 1.19
