# One cluster over three regions: in each a VPC, a shadow node with its volume, an etcd member, and managers behind a
# network load balancer. The VPCs are peered, so that everything between regions runs over private, encrypted paths.

provider "aws" {
  alias  = "a"
  region = var.regions.a
}

provider "aws" {
  alias  = "b"
  region = var.regions.b
}

provider "aws" {
  alias  = "c"
  region = var.regions.c
}

locals {
  cidrs = { a = "10.71.0.0/16", b = "10.72.0.0/16", c = "10.73.0.0/16" }

  # known before anything exists, so that every region can be told all of them
  addresses = {
    for key, cidr in local.cidrs : key => {
      node = cidrhost(cidrsubnet(cidr, 8, 0), 10)
      etcd = cidrhost(cidrsubnet(cidr, 8, 0), 11)
    }
  }

  etcd_members = { for key, region in var.regions : "etcd-${region}" => local.addresses[key].etcd }

  settings = {
    cluster               = var.cluster
    package               = var.package
    public_url            = var.public_url
    require_auth          = var.require_auth
    client_cidrs          = var.client_cidrs
    internal              = var.internal
    node_instance_type    = var.node_instance_type
    manager_instance_type = var.manager_instance_type
    etcd_instance_type    = var.etcd_instance_type
    managers              = var.managers_per_region
    data_volume           = var.data_volume
    etcd_version          = var.etcd_version
    etcd_members          = local.etcd_members
    peer_cidrs            = values(local.cidrs)
  }
}

module "a" {
  source          = "./modules/region"
  providers       = { aws = aws.a }
  settings        = local.settings
  secret          = var.secret
  region          = var.regions.a
  cidr            = local.cidrs.a
  addresses       = local.addresses.a
  certificate_arn = lookup(var.certificate_arns, "a", "")
}

module "b" {
  source          = "./modules/region"
  providers       = { aws = aws.b }
  settings        = local.settings
  secret          = var.secret
  region          = var.regions.b
  cidr            = local.cidrs.b
  addresses       = local.addresses.b
  certificate_arn = lookup(var.certificate_arns, "b", "")
}

module "c" {
  source          = "./modules/region"
  providers       = { aws = aws.c }
  settings        = local.settings
  secret          = var.secret
  region          = var.regions.c
  cidr            = local.cidrs.c
  addresses       = local.addresses.c
  certificate_arn = lookup(var.certificate_arns, "c", "")
}

module "peering_ab" {
  source    = "./modules/peering"
  providers = { aws.from = aws.a, aws.to = aws.b }
  from      = module.a.network
  to        = module.b.network
}

module "peering_ac" {
  source    = "./modules/peering"
  providers = { aws.from = aws.a, aws.to = aws.c }
  from      = module.a.network
  to        = module.c.network
}

module "peering_bc" {
  source    = "./modules/peering"
  providers = { aws.from = aws.b, aws.to = aws.c }
  from      = module.b.network
  to        = module.c.network
}
