variable "settings" {
  description = "What all regions have in common; see the root module's variables."
  type = object({
    cluster               = string
    package               = string
    public_url            = string
    require_auth          = bool
    client_cidrs          = list(string)
    internal              = bool
    node_instance_type    = string
    manager_instance_type = string
    etcd_instance_type    = string
    managers              = number
    data_volume           = object({ size_gib = number, iops = number, throughput_mib_s = number })
    etcd_version          = string
    etcd_members          = map(string)
    peer_cidrs            = list(string)
  })
}

variable "secret" {
  description = "The secret that managers and nodes share."
  type        = string
  sensitive   = true
}

variable "region" {
  description = "The AWS region, which is the ShadowQ region too."
  type        = string
}

variable "cidr" {
  description = "The VPC's network, a /16 that no other region has."
  type        = string
}

variable "addresses" {
  description = "Fixed private addresses of this region's node and etcd member, in the first subnet."
  type        = object({ node = string, etcd = string })
}

variable "certificate_arn" {
  description = "ACM certificate for HTTPS; empty for none."
  type        = string
}
