output "endpoints" {
  description = "Region -> endpoint_url for SQS clients."
  value       = { for each in [module.a, module.b, module.c] : each.region => each.endpoint }
}

output "etcd" {
  description = "etcd's client endpoints, as --etcd takes them."
  value       = join(",", [for address in values(local.etcd_members) : "${address}:2379"])
}
