// Small programs of the local cluster that need nothing but the standard library.
module quern.dev/hack/tools

go 1.26
