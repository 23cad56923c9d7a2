# Two subnets in two zones: node and etcd stand in the first, managers in both. Instances have public addresses to fetch
# packages with; what may come in is what the security groups say.

terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

locals {
  name = "${var.settings.cluster}-${var.region}"
}

data "aws_availability_zones" "available" {
  state = "available"
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true
  tags                 = { Name = local.name }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = local.name }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.this.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_subnet" "this" {
  count                   = 2
  vpc_id                  = aws_vpc.this.id
  cidr_block              = cidrsubnet(var.cidr, 8, count.index)
  availability_zone       = data.aws_availability_zones.available.names[count.index]
  map_public_ip_on_launch = true
  tags                    = { Name = "${local.name}-${count.index}" }
}

resource "aws_route_table_association" "this" {
  count          = length(aws_subnet.this)
  subnet_id      = aws_subnet.this[count.index].id
  route_table_id = aws_route_table.this.id
}

# 7600 node, 9424 managers' links and admin, 2379 and 2380 etcd: for the cluster's own networks only
resource "aws_security_group" "inner" {
  name        = "${local.name}-inner"
  description = "ShadowQ: between nodes, managers and etcd"
  vpc_id      = aws_vpc.this.id

  dynamic "ingress" {
    for_each = [7600, 9424, 2379, 2380]
    content {
      from_port   = ingress.value
      to_port     = ingress.value
      protocol    = "tcp"
      cidr_blocks = var.settings.peer_cidrs
    }
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "clients" {
  name        = "${local.name}-clients"
  description = "ShadowQ: SQS clients"
  vpc_id      = aws_vpc.this.id

  ingress {
    from_port   = 9324
    to_port     = 9324
    protocol    = "tcp"
    cidr_blocks = concat(var.settings.peer_cidrs, var.settings.client_cidrs)
  }
}
